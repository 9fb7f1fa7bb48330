// PG(1, c) by rejection from an envelope whose proposals are drawn by inversion, as in bayesfm/random/polya_gamma.py, where
// the formulas are explained. Of a vector in which a lane is rejected, which one in a hundred is, all lanes are drawn again
// and the accepted ones kept.
#include "polya_gamma.h"

#include "counter.h"
#include "real.h"

namespace bayesfm::ISA {
namespace {

constexpr int L = W<float>;
constexpr float kCut = 0.63661977f, kRootCut = 1.25331414f;  // 2 / pi, and one over its root: y at the cut for z = 0
constexpr float kPhi0 = 0.39894228f;
constexpr float kPi2 = 9.86960440f;

struct Envelope {
  Real z, p_right, p_left, beyond, rate;
  Signed tail;            // the left part lies in one normal tail
  Real y, root, near, far;  // where the inversion begins, sqrt(y^2 + 4z), and the Mills ratios of both
};

inline Envelope envelope(Real c) {
  Envelope e;
  e.z = 0.5f * absolute(c);
  const Real ratio = e.z * (1.0f / kRootCut), y0 = kRootCut - ratio, mirror = kRootCut + ratio;
  e.rate = 0.125f * kPi2 + 0.5f * e.z * e.z;
  const Real right = 1.96870125f / e.rate;  // the cut to the power of -3/2
  const Real at_y0 = mills_ratio(absolute(y0)), at_mirror = mills_ratio(mirror);
  const Real phi = kPhi0 * exp_minus(0.5f * y0 * y0);
  e.tail = y0 >= 0.0f;
  e.p_left = choose(e.tail, at_y0 + at_mirror, 1.0f - phi * (at_y0 - at_mirror));
  e.p_right = choose(e.tail, right, phi * right);
  e.beyond = phi * (at_y0 - at_mirror - right);
  e.y = larger(y0, real(0.0f));
  e.root = choose(e.tail, mirror, 2.0f * square_root(e.z));
  e.near = choose(e.tail, at_y0, real(kRootCut));
  e.far = choose(e.tail, at_mirror, mills_ratio(e.root));
  return e;
}

// The tau >= y with log D(y) - log D(tau) = E, where D is the sum (sign 1) or the difference (-1) of two normal tails.
// Derivatives are kept times powers of weight = 1 +- tau / root, and of the ratio D / phi, to save divisions.
inline Real solve(Real E, Real sign, Real base, const Envelope& e) {
  struct At {
    Real weight, bend;  // bend: the derivative of the log hazard, times ratio weight
  };
  const auto at = [&](Real tau, Real root, Real ratio) {
    const Real inverse = 1.0f / root, weight = 1.0f + sign * tau * inverse;
    const Real third = sign * 4.0f * e.z * inverse * inverse * inverse;
    return At{weight, weight * (weight - tau * ratio) + third * ratio};
  };
  const At start = at(e.y, e.root, base);
  const Real over = 1.0f / start.weight, inverse_base = 1.0f / base;
  const Real growth = larger(start.bend * over * over, real(0.0f));
  Real tau = e.y + 2.0f * (E * base * over) / (1.0f + square_root(1.0f + 2.0f * growth * E));
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    const Real root = square_root(tau * tau + 4.0f * e.z);
    const Real ratio = mills_ratio(tau) + sign * mills_ratio(root);
    const At now = at(tau, root, ratio);
    const Real error = 0.5f * (tau - e.y) * (tau + e.y) - log_of(ratio * inverse_base) - E;
    tau = larger(tau - error * ratio * now.weight / (now.weight * now.weight - 0.5f * error * now.bend), e.y);
  }
  return tau;
}

inline Real propose(UniformPair p, const Envelope& e) {
  const Real total = e.p_right + e.p_left;
  const Real above = p.v * total, below = p.u + p.v * e.beyond;
  const Signed upper = e.tail | (above < (e.near + e.far) * kPhi0);
  const Real sign = choose(upper, real(1.0f), real(-1.0f));
  const Real base = e.near + sign * e.far;
  // One logarithm for both sides of the cut.
  const Real up = p.u * total;
  const Signed is_right = up < e.p_right;
  const Real scale = choose(is_right, e.p_right, choose(e.tail, e.p_left, base * kPhi0));
  const Real E = larger(-log_of(choose(is_right, up, choose(upper, above, below)) / scale), real(0.0f));
  const Real tau = solve(E, sign, base, e);
  const Real s = 0.5f * (tau + square_root(tau * tau + 4.0f * e.z));
  const Real root = choose(upper, real(1.0f), s) / choose(upper, s, e.z);
  return choose(is_right, kCut + E / e.rate, smaller(root * root, real(kCut)));
}

// The density over its envelope.
inline Real ratio(Real x) {
  const Real e = exp_minus(choose(x < kCut, 4.0f / x, kPi2 * x));
  return 1.0f - e * (3.0f - 5.0f * e * e);
}

// Of one attempt, as jax.random derives them.
struct Keys {
  explicit Keys(Key key, uint32_t i) : x(derived(derived(key, i), 0)), accept(derived(derived(key, i), 1)) {}
  Key x, accept;
};

inline Real attempt(const Keys& keys, int64_t first, const Envelope& e, Signed* rejected) {
  const Real x = propose(uniform_pair(random_bits(keys.x, first)), e);
  *rejected = uniform_pair(random_bits(keys.accept, first)).u > ratio(x);
  return x;
}

}  // namespace

void polya_gammas(const PolyaGamma& f, int64_t lo, int64_t hi) {
  const Key key{f.key0, f.key1};
  const Keys start(key, 0);
  for (int64_t first = lo; first < hi; first += L) {
    const Envelope e = envelope(load_some(f.c, first, hi));
    Signed waiting;
    Real x = attempt(start, first, e, &waiting);
    for (uint32_t i = 1; any(waiting); ++i) {
      Signed rejected;
      const Real next = attempt(Keys(key, i), first, e, &rejected);
      x = choose(waiting, next, x);
      waiting &= rejected;
    }
    store_some(f.out, first, hi, 0.25f * x);
  }
}

}  // namespace bayesfm::ISA
