// The page `plugins`.

import { element } from "../dom.js";
import { openPage } from "./shell.js";
import { t } from "./texts.js";

openPage(() => t("Plugins"), (main) => {
  main.append(element("h2", {}, t("Plugins")));
});
