// The page `home`.

import { element } from "../dom.js";
import { openPage } from "./shell.js";
import { t } from "./texts.js";

openPage(() => t("Home"), (main) => {
  main.append(element("h2", {}, t("Home")));
});
