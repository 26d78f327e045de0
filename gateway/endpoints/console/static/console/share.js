// The page `share`.

import { element } from "../dom.js";
import { openPage } from "./shell.js";
import { t } from "./texts.js";

openPage(() => t("Share"), (main) => {
  main.append(element("h2", {}, t("Share")));
});
