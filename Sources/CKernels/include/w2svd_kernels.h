// Fused elementwise and reduction loops in C11. All symbols start with w2svd_.
//
// No function allocates or checks; the Swift callers check sizes. Pointers need only the alignment
// of their element, and results do not depend on it. Outputs may be the same memory as an input of
// equal index (in place), but must not overlap it otherwise. "+=" marks outputs that are added to;
// `accumulating` says whether dx (dh) is added to or overwritten.
#ifndef W2SVD_KERNELS_H
#define W2SVD_KERNELS_H
#include <stddef.h>
#include <stdint.h>

// Elementwise (elementwise.c). Formulas: Activation in KernelScalar.swift.
void w2svd_gelu(const float *x, float *y, size_t count);
void w2svd_gelu_backward(const float *dy, const float *x, float *dx, size_t count,
                         int accumulating);
void w2svd_silu(const float *x, float *y, size_t count);
void w2svd_silu_backward(const float *dy, const float *x, float *dx, size_t count,
                         int accumulating);
void w2svd_softplus(const float *x, float *y, size_t count);
void w2svd_softplus_backward(const float *dy, const float *x, float *dx, size_t count,
                             int accumulating);
void w2svd_pseudo_huber(float c, const float *x, float *y, size_t count);
void w2svd_pseudo_huber_backward(float c, const float *dy, const float *x, float *dx, size_t count,
                                 int accumulating);
void w2svd_exp(const float *x, float *y, size_t count);
// z = a x + b y; y += a x; z = x y; z += x y.
void w2svd_combine(float a, const float *x, float b, const float *y, float *z, size_t count);
void w2svd_add(float a, const float *x, float *y, size_t count);
void w2svd_multiply(const float *x, const float *y, float *z, size_t count);
void w2svd_add_product(const float *x, const float *y, float *z, size_t count);
// y = x + gate h per row, gate per group of rows; and its gradients (either may be null). Gradients of
// some columns of all rows: `stride` elements from row to row, and from group to group.
void w2svd_gated_residual(const float *x, const float *gate, const float *h, float *y,
                          size_t groups, size_t rows, size_t width);
void w2svd_gated_residual_backward(const float *dy, const float *gate, const float *h, float *dh,
                                   float *dgate, size_t groups, size_t rows, size_t width,
                                   size_t stride, int accumulating);

// Products (products.c): c = scale · Σ_t a_t b_t + bias, or c += where `accumulating`. a_t is rows ×
// inner_t and b_t inner_t × columns, all a and all b stored row by row or crossed (transposed); strides
// in elements; `bias`: a row that is added to every row of c, or null. Sizes are above zero, inner_t of
// all terms but the last a multiple of 32; the workspace has as many bytes as said for the sum of the
// inner_t, which smaller sizes never exceed, aligned to 64. The first needs AVX-512
// (w2svd_has_avx512); the second takes its operands rounded to bfloat16 and needs vdpbf16ps.
// `slices`: a power of two. The terms are those of so many slices one after the other, of equal Σ inner_t each,
// whose products meet in the tree of Sources/MeshLayout/TreeOrder.swift, then the bias; more than one do not
// accumulate. Of a slice's terms all but the last have an even inner_t.
// `ahead`: what w2svd_pack_panels made of the b of the first terms, one above the other, or null; their
// `b` is null then. Its panels may be a stretch of a wider operand's. Same bits either way.
struct w2svd_term {
  const float *a;
  size_t a_stride;
  const float *b;
  size_t b_stride, inner;
};
struct w2svd_packed {
  const uint32_t *words;
  size_t panel_stride, inner;
};
size_t w2svd_multiply_float_workspace(size_t rows, size_t inner, size_t columns, size_t slices);
void w2svd_multiply_float(const struct w2svd_term *terms, size_t term_count, size_t slices,
                          const struct w2svd_packed *ahead, int a_crossed, int b_crossed,
                          const float *bias, float *c, size_t c_stride, size_t rows,
                          size_t columns, float scale, int accumulating, void *workspace);
int w2svd_has_bfloat16(void);
size_t w2svd_multiply_bfloat16_workspace(size_t rows, size_t inner, size_t columns, size_t slices);
void w2svd_multiply_bfloat16(const struct w2svd_term *terms, size_t term_count, size_t slices,
                             const struct w2svd_packed *ahead, int a_crossed, int b_crossed,
                             const float *bias, float *c, size_t c_stride, size_t rows,
                             size_t columns, float scale, int accumulating, void *workspace);

// Products of operands that were packed ahead; AVX-512, and vdpbf16ps for bfloat16. Words of 32 bits:
// a float, or two bfloat16 that follow each other along the sum.
#define W2SVD_ROW_STRIDE 272  // words from row to row of a packed left operand, of which 256 are used
#define W2SVD_TILE_ROWS 12    // a left operand is read in multiples of so many rows
#define W2SVD_TILE_COLUMNS 32 // a right operand is packed in panels of so many columns
// Left operand from rows of at most 256 words.
void w2svd_pack_rows(int is_bfloat16, const float *x, size_t stride, size_t rows, size_t inner,
                     uint32_t *packed);
// Right operand, inner × columns or crossed: panels of 32 columns, one after the other.
void w2svd_pack_panels(int is_bfloat16, const float *b, size_t stride, int is_crossed,
                       size_t inner, size_t columns, uint32_t *packed);
// c = scale · a b, or c += where `accumulating`; `depth` words along the sum. a crossed: word p of row
// r at a[p · W2SVD_ROW_STRIDE + r]. Rows up to a multiple of 12 (a crossed: words) are read.
void w2svd_multiply_packed(int is_bfloat16, const uint32_t *a, int a_crossed, const uint32_t *b,
                           size_t depth, float *c, size_t c_stride, size_t rows, size_t columns,
                           float scale, int accumulating);

// Reductions (reductions.c): Float64, 32 fixed lanes, the same order on every CPU.
double w2svd_sum(const float *x, size_t count);
double w2svd_sum_of_magnitudes(const float *x, size_t count);
double w2svd_dot(const float *x, const float *y, size_t count);
// x[r] += bias for each row; sums += Σ_r x[r · stride], by blocks of 64 rows.
void w2svd_add_bias(const float *bias, float *x, size_t rows, size_t width);
void w2svd_add_column_sums(const float *x, size_t stride, float *sums, size_t rows, size_t width);

// Normalizations (normalization.c). scale, shift, gain and gradients may be null. `stride`: as in
// w2svd_gated_residual_backward; dx needs whole rows.
void w2svd_layer_norm(const float *x, const float *scale, const float *shift, float offset,
                      float epsilon, size_t groups, size_t rows, size_t width, float *y,
                      float *mean, float *inverse);
void w2svd_layer_norm_backward(const float *dy, const float *x, const float *scale, float offset,
                               size_t groups, size_t rows, size_t width, size_t stride,
                               const float *mean, const float *inverse, float *dx,
                               int accumulating, float *dscale, float *dshift);
#define W2SVD_LARGEST_HEAD 512  // largest head width
#define W2SVD_MOST_SLICES 8     // slices of the heads, each with a dgain of its own, one after the other
void w2svd_head_norm(const float *x, const float *gain, const float *cosines, const float *sines,
                     float epsilon, size_t samples, size_t tokens, size_t heads, size_t width,
                     size_t rotated, float *y, float *inverse);
void w2svd_head_norm_backward(const float *dy, const float *x, const float *gain,
                              const float *cosines, const float *sines, size_t samples,
                              size_t tokens, size_t heads, size_t width, size_t rotated,
                              const float *inverse, float *dx, int accumulating, float *dgain,
                              size_t slices);
// y[r] = (or +=) x[r] with the pairs of each head rotated by one table of head_width / 2 angles, or
// rotated back.
void w2svd_rotate_rows(const float *x, size_t x_stride, float *y, size_t y_stride, size_t rows,
                       size_t width, const float *cosines, const float *sines, size_t head_width,
                       int backwards, int accumulating);

// Softmax parts of attention (attention.c), on a tile of scores whose stride is a multiple of 16;
// padding columns up to it are overwritten. `bias`: 0 or −∞ per column, or null.
// scores -> exp(scores − new maximum); updates maximum and total; factor = exp(old − new maximum).
void w2svd_softmax_tile(float *scores, size_t rows, size_t columns, size_t stride,
                        const float *bias, float *maximum, float *total, float *factor);
// x[r] *= factor[r].
void w2svd_scale_rows(float *x, size_t stride, size_t rows, size_t width, const float *factor);
// x[r] /= total[r] (zero where total is), log_sum_exp = maximum + log(total).
void w2svd_finish_rows(float *x, size_t stride, size_t rows, size_t width, const float *maximum,
                       const float *total, float *log_sum_exp);
// Attention over two sets of keys from those over each: x = e^(l − m) x + e^(l' − m) x', with
// m = log(e^l + e^l'), the new log-sum-exp; −∞ for a row that saw no key.
void w2svd_join_attention(float *x, float *log_sum_exp, const float *other,
                          const float *other_log_sum_exp, size_t stride, size_t rows,
                          size_t width);
// scores -> exp(scores + bias − log_sum_exp[r]).
void w2svd_probabilities(float *scores, size_t rows, size_t columns, size_t stride,
                         const float *bias, const float *log_sum_exp);
// dp -> p (dp − correction[r]) scale.
void w2svd_score_gradients(const float *p, float *dp, size_t rows, size_t columns, size_t stride,
                           const float *correction, float scale);
// The same between products of packed operands (attention_words.c): at most 256 columns, row after row
// W2SVD_ROW_STRIDE apart. Softmax turns scores into words of the left operand, in place.
void w2svd_softmax_words(int is_bfloat16, float *scores, size_t rows, size_t columns,
                         const float *bias, float *maximum, float *total, float *factor);
// scores -> p = exp(scores + bias − log_sum_exp[r]), dp -> ds = p (dp − correction[r]) scale, as words.
// Floats serve as they are, also crossed. bfloat16: dp gets the words of ds; p_pairs and ds_pairs
// the crossed operands, whose words join rows 2i and 2i + 1 (zero beyond the last); scores stay.
void w2svd_attention_gradients(int is_bfloat16, float *scores, float *dp, size_t rows,
                               size_t columns, const float *bias, const float *log_sum_exp,
                               const float *correction, float scale, uint32_t *p_pairs,
                               uint32_t *ds_pairs);
// dots[r] = Σ_i x[r, i] y[r, i].
void w2svd_row_dots(const float *x, const float *y, size_t stride, size_t rows, size_t width,
                    float *dots);

// AdamW (optimizer.c), elementwise: any split of a range gives equal bits. `ema` may be null.
struct w2svd_adamw_factors {
  float gradient_scale, beta1, beta2, step_size, inverse_root_correction, epsilon, decay_factor,
      ema_decay;
};
void w2svd_adamw(float *p, const float *g, float *m, float *v, float *ema, size_t count,
                 const struct w2svd_adamw_factors *factors);

// Formats (formats.c): round to nearest even; NaN stays NaN.
void w2svd_float_to_bfloat16(const float *x, uint16_t *y, size_t count);
void w2svd_bfloat16_to_float(const uint16_t *x, float *y, size_t count);
void w2svd_float_to_half(const float *x, uint16_t *y, size_t count);
void w2svd_half_to_float(const uint16_t *x, float *y, size_t count);

// Moving (moving.c).
void w2svd_copy_rows(const float *x, size_t x_stride, float *y, size_t y_stride, size_t rows,
                     size_t width);
void w2svd_add_rows(const float *x, size_t x_stride, float *y, size_t y_stride, size_t rows,
                    size_t width);
// y[c, r] = x[r, c], strides in elements.
void w2svd_transpose(const float *x, size_t x_stride, float *y, size_t y_stride, size_t rows,
                     size_t columns);
// Sizes of a 3-D convolution: axes are time, height, width.
struct w2svd_unfolding {
  size_t channels, size[3], kernel[3], stride[3], padding[3], output_height, output_width;
};
// columns[(channel, kernel element), (line, output column)] for `lines` output lines from
// `first_line` on, a line being one (output time, output height); zero outside x.
void w2svd_unfold(const float *x, const struct w2svd_unfolding *sizes, size_t first_line,
                  size_t lines, float *columns);

// The machine (machine.c).
// 1 when CPU and operating system offer AVX-512 F, BW, DQ and VL.
int w2svd_has_avx512(void);
// Tells the core that this thread only looks for a change.
void w2svd_pause(void);
// Runs `rounds` × 12 × 16 fused multiply-adds in registers; returns a value that needs them all.
float w2svd_fma_loop(size_t rounds, float factor);
// z = x + a y.
void w2svd_triad(float a, const float *x, const float *y, float *z, size_t count);
// Lets malloc keep blocks of up to 32 MiB, and 256 MiB in all, instead of returning them.
void w2svd_keep_freed_memory(void);
#endif
