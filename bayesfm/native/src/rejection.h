// Gammas of shape parameters >= 1 by rejection (Marsaglia & Tsang 2000), as in bayesfm/random/gamma.py. What is rejected,
// at most one in twenty, is gathered and tried again with the key of the next attempt.
#pragma once

#include <algorithm>

#include "counter.h"
#include "real.h"

namespace bayesfm::ISA {

// The numbers of a stream that are worked off together.
constexpr int kTogether = 256;

struct Attempt {
  Attempt(Key key, uint32_t i) : normal(derived(derived(key, i), 0)), accept(derived(derived(key, i), 1)) {}

  // A proposal for each of the indices first + lane.
  Real operator()(int64_t first, Bits lane, Real shape, Signed* rejected) const {
    const Real d = shape - 0.33333333f, x = normal_from(random_bits(normal, first, lane));
    const Real w = larger(x / square_root(9.0f * d), real(-0.9999f));
    const Real growth = w * (3.0f + w * (3.0f + w));  // (1 + w)^3 - 1
    const Real log_u = log_of(uniform_pair(random_bits(accept, first, lane)).u);
    *rejected = log_u > 0.5f * x * x + d * (3.0f * log_1p(w) - growth);
    return d * (1.0f + growth);
  }

  Key normal, accept;
};

// Gamma(shape[i]) for i = 0, ..., count - 1 <= kTogether, with the bits of the indices start + i.
inline void draw_gammas(Key key, int64_t start, int count, const float* shape, float* out) {
  int waiting[kTogether + W<float>], left = 0;
  const Attempt once(key, 0);
  for (int first = 0; first < count; first += W<float>) {
    Signed rejected;
    store_some(out, first, count, once(start + first, lane_numbers(), load_some(shape, first, count), &rejected));
    if (!any(rejected)) continue;
    for (int l = 0; l < W<float>; ++l)
      if (rejected[l] && first + l < count) waiting[left++] = first + l;
  }
  for (uint32_t i = 1; left > 0; ++i) {
    const Attempt again(key, i);
    int kept = 0;
    for (int j = 0; j < left; j += W<float>) {
      const int some = std::min(W<float>, left - j);
      Bits index{};
      Real own = real(1.0f);
      for (int l = 0; l < some; ++l) {
        index[l] = static_cast<uint32_t>(waiting[j + l]);
        own[l] = shape[index[l]];
      }
      Signed rejected;
      const Real x = again(start, index, own, &rejected);
      for (int l = 0; l < some; ++l) {
        if (rejected[l])
          waiting[kept++] = static_cast<int>(index[l]);
        else
          out[index[l]] = x[l];
      }
    }
    left = kept;
  }
}

}  // namespace bayesfm::ISA
