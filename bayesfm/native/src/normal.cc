// Standard normals from counters; see counter.h. Number i depends on the key and on i alone: neither threads nor vector widths show.
#include "normal.h"

#include "counter.h"
#include "real.h"

namespace bayesfm::ISA {
void standard_normals(uint32_t key0, uint32_t key1, float* out, int64_t lo, int64_t hi) {
  for (int64_t first = lo; first < hi; first += W<float>)
    store_some(out, first, hi, normal_from(random_bits({key0, key1}, first)));
}

}  // namespace bayesfm::ISA
