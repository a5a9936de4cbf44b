import { browser } from "./browser.mjs";

browser("chromium");
