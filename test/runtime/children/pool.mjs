export default (n) => n * n;
export function sum(array) {
  return array.reduce((a, b) => a + b, 0);
}
