// The page `links`.

import { element } from "../dom.js";
import { openPage } from "./shell.js";
import { t } from "./texts.js";

openPage(() => t("Links"), (main) => {
  main.append(element("h2", {}, t("Links")));
});
