// Gamma variables from counters; see gamma.cc and gamma_sums.cc.
#pragma once

#include <cstdint>

namespace bayesfm {

// Gamma(shape, rate 1); numbers lo, ..., hi - 1 of the stream of a threefry key.
struct Gamma {
  uint32_t key0, key1;
  const float* shape;
  float* out;
};
using Gammas = void (*)(const Gamma&, int64_t lo, int64_t hi);

// PG(b, c) for b >= 1; of `size` numbers in all.
struct GammaSum {
  uint32_t key0, key1;
  const float *b, *c;
  float* out;
  int64_t size;
};
using GammaSums = void (*)(const GammaSum&, int64_t lo, int64_t hi);

}  // namespace bayesfm
