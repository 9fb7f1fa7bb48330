// Standard normals: the bits of jax.random, turned into uniforms and normals as jax.random does, up to rounding.
//
// Number i depends on the key and on i alone: neither threads nor vector widths show.
#include "normal.h"

#include "counter.h"
#include "real.h"

namespace bayesfm::ISA {
namespace {

constexpr int L = W<float>;

// sqrt(2) erfinv(u): Giles (2012), Approximating the erfinv function, GPU Computing Gems, single precision.
inline Real normal_quantile(Real u) {
  const Real w = -log_of((1.0f - u) * (1.0f + u));
  constexpr float centre[9] = {2.81022636e-08f,  3.43273939e-07f, -3.5233877e-06f, -4.39150654e-06f, 0.00021858087f,
                               -0.00125372503f, -0.00417768164f, 0.246640727f,    1.50140941f};
  constexpr float tail[9] = {-0.000200214257f, 0.000100950558f, 0.00134934322f, -0.00367342844f, 0.00573950773f,
                             -0.0076224613f,   0.00943887047f,  1.00167406f,    2.83297682f};
  const Signed central = w < 5.0f;
  const Real x = choose(central, w - 2.5f, square_root(w) - 3.0f);
  Real p = choose(central, splat<float>(centre[0]), splat<float>(tail[0]));
#pragma GCC unroll 8
  for (int i = 1; i < 9; ++i) p = choose(central, splat<float>(centre[i]), splat<float>(tail[i])) + p * x;
  return 1.41421356f * (p * u);
}

}  // namespace

void standard_normals(uint32_t key0, uint32_t key1, float* out, int64_t lo, int64_t hi) {
  for (int64_t first = lo; first < hi; first += L) {
    // Uniform on [-1 + 2^-24, 1): 23 random bits in [1, 2).
    const Real unit = as<Real>((random_bits({key0, key1}, first) >> 9) | 0x3f800000u) - 1.0f;
    const float least = -0.99999994f;
    Real u = unit * (1.0f - least) + least;
    u = choose(u < least, splat<float>(least), u);
    store_some(out, first, hi, normal_quantile(u));
  }
}

}  // namespace bayesfm::ISA
