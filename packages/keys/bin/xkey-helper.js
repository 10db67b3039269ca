#!/usr/bin/env node
// Kept outside dist so that npm can link it before the first build.
import { main } from "../dist/src/helpers/xkey-helper.js";

process.exitCode = await main(process.argv.slice(2));
