import { matrix } from "./matrix.mjs";

matrix({ shards: 2 });
