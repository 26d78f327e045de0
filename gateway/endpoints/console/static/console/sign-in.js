// The page `sign-in`.

import { element } from "../dom.js";
import { openPage } from "./shell.js";
import { t } from "./texts.js";

openPage(() => t("Sign-in"), (main) => {
  main.append(element("h2", {}, t("Sign-in")));
});
