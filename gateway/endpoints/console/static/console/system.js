// The page `system`.

import { element } from "../dom.js";
import { openPage } from "./shell.js";
import { t } from "./texts.js";

openPage(() => t("System"), (main) => {
  main.append(element("h2", {}, t("System")));
});
