// The page `activity`.

import { element } from "../dom.js";
import { openPage } from "./shell.js";
import { t } from "./texts.js";

openPage(() => t("Activity"), (main) => {
  main.append(element("h2", {}, t("Activity")));
});
