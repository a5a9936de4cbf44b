import { browser } from "./browser.mjs";

browser("firefox");
