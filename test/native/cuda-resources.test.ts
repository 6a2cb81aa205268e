// CUDA kernels do not spill registers to memory, on any architecture that is built: what ptxas said in the build itself.
import { existsSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";

interface Kernel { kernel: string; source: string; arch: string; registers: number; stack: number; spills: number }
const stamp = "build/tesra-native.stamp.json", file = "build/cuda-resources.json";
const compiled = existsSync(stamp) && (JSON.parse(readFileSync(stamp, "utf8")) as { cuda: boolean }).cuda;

describe.skipIf(!compiled)("registers of the CUDA kernels", () => {
  const kernels = compiled ? JSON.parse(readFileSync(file, "utf8")) as Kernel[] : [];
  const HOT = ["product", "tensorProduct", "tensorProductHopper", "scanTiles", "scanHopper", "attention", "adam", "layerNorm|norm"];

  it.each(HOT)("%s was compiled for sm_80 and sm_90a", (name) => {
    const archs = kernels.filter(({ kernel }) => new RegExp(name, "i").test(kernel)).map(({ arch }) => arch);
    expect([...new Set(archs)].sort()).toEqual(expect.arrayContaining(["sm_80", "sm_90a"]));
  });

  // 8 and 16 bytes of stack at the limit of 255 registers; they may go, and may not grow.
  const KNOWN = [
    { kernel: /7product.*Tile.*DenseILb0E.*S5_/, arch: "sm_90a", bytes: 24 },
    { kernel: /12keyGradientsILi4E/, arch: "sm_80", bytes: 48 },
    { kernel: /8takeInt8E/, arch: "sm_80", bytes: 16 },
  ];

  it("none spills, but for three by a few bytes", () => {
    const known = (spilling: Kernel): number =>
      KNOWN.find(({ kernel, arch }) => arch === spilling.arch && kernel.test(spilling.kernel))?.bytes ?? 0;
    expect(kernels.filter((kernel) => kernel.spills > known(kernel)).map(({ kernel, arch, spills }) => `${kernel} ${arch}: ${spills} bytes`)).toEqual([]);
  });
});
