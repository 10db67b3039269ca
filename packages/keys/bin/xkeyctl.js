#!/usr/bin/env node
// Kept outside dist so that npm can link it before the first build.
import { runProgram } from "../dist/src/command/xkeyctl.js";

await runProgram();
