import { browser } from "./browser.mjs";

browser("webkit");
