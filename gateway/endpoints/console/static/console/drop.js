// The page `drop`.

import { element } from "../dom.js";
import { openPage } from "./shell.js";
import { t } from "./texts.js";

openPage(() => t("Drop"), (main) => {
  main.append(element("h2", {}, t("Drop")));
});
