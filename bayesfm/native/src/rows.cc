// eta of every data row from the summaries (E, Q) of its units: E adds up, and each unit's Q meets those before it.
#include "rows.h"

#include "vector.h"

namespace bayesfm::ISA {

template <class T>
void linear_predictor(const Rows<T>& f, int64_t lo, int64_t hi) {
  constexpr int W = Lanes<T>::W;
  for (int64_t n = lo; n < hi; ++n) {
    const T* first = f.table[0] + f.code[0][n] * f.stride;
    T eta = f.w0 + first[0];
    V<T> pairs{};
    for (int t = 1; t < f.num_tables; ++t) {
      const T* next = f.table[t] + f.code[t][n] * f.stride;
      eta += next[0];
      for (int64_t k = 0; k < f.stride; k += W) {
        V<T> before = load<T>(first + k);
        for (int u = 1; u < t; ++u) before += load<T>(f.table[u] + f.code[u][n] * f.stride + k);
        if (k == 0) before[0] = T(0);  // E takes no part in the products
        pairs += before * load<T>(next + k);
      }
    }
    f.eta[n] = eta + sum<T>(pairs);
  }
}

template void linear_predictor<float>(const Rows<float>&, int64_t, int64_t);
template void linear_predictor<double>(const Rows<double>&, int64_t, int64_t);

}  // namespace bayesfm::ISA
