// The page `files`.

import { element } from "../dom.js";
import { openPage } from "./shell.js";
import { t } from "./texts.js";

openPage(() => t("Files"), (main) => {
  main.append(element("h2", {}, t("Files")));
});
