// The page `timeline`.

import { element } from "../dom.js";
import { openPage } from "./shell.js";
import { t } from "./texts.js";

openPage(() => t("Timeline"), (main) => {
  main.append(element("h2", {}, t("Timeline")));
});
