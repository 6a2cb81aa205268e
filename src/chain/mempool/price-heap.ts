// Owns a binary heap whose top is the greatest entry. Invariant: items[parent] >= items[child].
export class MaxHeap<T> {
  private readonly items: T[] = [];

  constructor(private readonly isGreater: (a: T, b: T) => boolean) {}

  push(item: T): void {
    const { items } = this;
    let index = items.push(item) - 1;
    while (index > 0) {
      const parent = (index - 1) >> 1;
      if (!this.isGreater(items[index]!, items[parent]!)) return;
      [items[index], items[parent]] = [items[parent]!, items[index]!];
      index = parent;
    }
  }

  pop(): T | undefined {
    const { items } = this;
    const top = items[0];
    const last = items.pop();
    if (last === undefined || items.length === 0) return top;
    items[0] = last;
    for (let index = 0; ;) {
      let greatest = index;
      for (const child of [2 * index + 1, 2 * index + 2]) {
        if (child < items.length && this.isGreater(items[child]!, items[greatest]!)) greatest = child;
      }
      if (greatest === index) return top;
      [items[index], items[greatest]] = [items[greatest]!, items[index]!];
      index = greatest;
    }
  }
}
