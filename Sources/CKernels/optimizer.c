// AdamW with decoupled weight decay and, in the same pass, the moving average of the parameters.
// Source: Loshchilov & Hutter, "Decoupled weight decay regularization" (1711.05101), algorithm 2.
#include "loops.h"

#define UPDATE(i)                                                                    \
  const float gradient = g[i] * f.gradient_scale;                                    \
  const float first = f.beta1 * m[i] + (1.0f - f.beta1) * gradient;                  \
  const float second = f.beta2 * v[i] + (1.0f - f.beta2) * (gradient * gradient);    \
  const float root = sqrtf(second) * f.inverse_root_correction + f.epsilon;          \
  const float updated = p[i] * f.decay_factor - f.step_size * (first / root);        \
  m[i] = first;                                                                      \
  v[i] = second;                                                                     \
  p[i] = updated;

KERNEL void w2svd_adamw(float *p, const float *g, float *m, float *v, float *ema, size_t count,
                        const struct w2svd_adamw_factors *factors) {
  const struct w2svd_adamw_factors f = *factors;
  if (ema) {
    INDEPENDENT
    for (size_t i = 0; i < count; i++) {
      UPDATE(i)
      ema[i] = f.ema_decay * ema[i] + (1.0f - f.ema_decay) * updated;
    }
  } else {
    INDEPENDENT
    for (size_t i = 0; i < count; i++) {
      UPDATE(i)
    }
  }
}
