// The page `upload`.

import { element } from "../dom.js";
import { openPage } from "./shell.js";
import { t } from "./texts.js";

openPage(() => t("Upload"), (main) => {
  main.append(element("h2", {}, t("Upload")));
});
