// Owns the type of the RocksDB package, which ships none; store/rocks-store.ts gives it one.
declare module "rocksdb" {
  const rocksdb: unknown;
  export default rocksdb;
}
