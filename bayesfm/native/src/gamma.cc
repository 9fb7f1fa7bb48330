// Gamma variables of any shape; below one a draw of shape + 1 times U^(1 / shape).
#include "gamma.h"

#include "rejection.h"

namespace bayesfm::ISA {

void gammas(const Gamma& f, int64_t lo, int64_t hi) {
  const Key tries = derived({f.key0, f.key1}, 0), boost = derived({f.key0, f.key1}, 1);
  for (int64_t start = lo; start < hi; start += kTogether) {
    const int count = static_cast<int>(std::min<int64_t>(kTogether, hi - start));
    float shape[kTogether];
    Signed some{};
    for (int first = 0; first < count; first += W<float>) {
      const Real own = load_some(f.shape + start, first, count);
      const Signed small = own < 1.0f;
      some |= small;
      store_some(shape, first, count, choose(small, own + 1.0f, own));
    }
    draw_gammas(tries, start, count, shape, f.out + start);
    if (!any(some)) continue;
    for (int first = 0; first < count; first += W<float>) {
      const Real own = load_some(f.shape + start, first, count), x = load_some(f.out + start, first, count);
      const Real root = exp_minus(-log_of(uniform_pair(random_bits(boost, start + first)).u) / own);
      store_some(f.out + start, first, count, choose(own < 1.0f, x * root, x));
    }
  }
}

}  // namespace bayesfm::ISA
