// Owns a wait that an abort ends early. Invariant: leaves neither timer nor listener behind.
export const sleep = (ms: number, signal?: AbortSignal): Promise<void> => new Promise((resolve) => {
  const done = (): void => {
    clearTimeout(timer);
    signal?.removeEventListener("abort", done);
    resolve();
  };
  const timer = setTimeout(done, ms);
  signal?.addEventListener("abort", done, { once: true });
});
