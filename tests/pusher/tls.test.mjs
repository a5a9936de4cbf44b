import { matrix } from "./matrix.mjs";

matrix({ tls: true });
