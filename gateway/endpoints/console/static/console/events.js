// The page `events`.

import { element } from "../dom.js";
import { openPage } from "./shell.js";
import { t } from "./texts.js";

openPage(() => t("Events"), (main) => {
  main.append(element("h2", {}, t("Events")));
});
