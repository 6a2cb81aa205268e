// Owns the OpenBLAS side: cblas_sgemm. Start it with OPENBLAS_CORETYPE=SKYLAKEX where AVX-512 is there: Debian's
// build takes newer CPUs for an old one and is five times too slow then.
#include <cblas.h>

#include "side.h"

int main() {
  return side::serve(std::string(openblas_get_config()).substr(0, 40), [](const side::Case& c) -> side::Body {
    if (c.word("op") != "sgemm") return nullptr;
    const int m = c.integer("m"), n = c.integer("n"), k = c.integer("k"), threads = c.integer("threads", 1);
    const bool ta = c.integer("transA") != 0, tb = c.integer("transB") != 0;
    auto a = side::random_floats(size_t(m) * k), b = side::random_floats(size_t(k) * n),
         out = side::random_floats(size_t(m) * n);
    return [=] {
      openblas_set_num_threads(threads);
      cblas_sgemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans, m, n, k, 1.0f,
                  a.get(), ta ? m : k, b.get(), tb ? k : n, 0.0f, out.get(), n);
    };
  });
}
