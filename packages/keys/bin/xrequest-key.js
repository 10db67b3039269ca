#!/usr/bin/env node
// Kept outside dist so that npm can link it before the first build.
import { runProgram } from "../dist/src/request-key/xrequest-key.js";

await runProgram();
