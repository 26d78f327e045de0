// The page `event`.

import { element } from "../dom.js";
import { openPage } from "./shell.js";
import { t } from "./texts.js";

openPage(() => t("Event"), (main) => {
  main.append(element("h2", {}, t("Event")));
});
