// Owns the way from a source file to the compiled program: child processes run from dist, also when the
// caller itself runs from src (tests).
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

/** Absolute path of a compiled file. Throws when the project is not built. */
export function distFileOf(relativePath: string): string {
  const areaRoot = fileURLToPath(new URL("../../", import.meta.url)); // src/ or dist/
  const path = join(areaRoot, "..", "dist", relativePath);
  if (!existsSync(path)) throw new Error(`${path} is missing; run: npm run setup`);
  return path;
}
