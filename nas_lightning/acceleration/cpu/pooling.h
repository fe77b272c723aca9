/* The maximum of every window of channels-last images, and its index in the window, for fused_blocks.c.
 *
 * Indices count along the window's rows. The first of equal values wins, and NaN before all others, as in
 * torch.
 */

typedef struct {
  int64_t batch, height, width, channels;
  int64_t size, stride, padding, out_height, out_width;
  int64_t threads;
} window;

typedef __typeof__(__builtin_choose_expr(sizeof(REAL) == 4, (int32_t)0, (int64_t)0)) lane_index;
typedef lane_index indices __attribute__((vector_size(VECTOR_BYTES)));
typedef unsigned char bytes __attribute__((vector_size(VECTOR_BYTES / sizeof(REAL)), aligned(1)));

/* An index in every lane. */
INLINE indices splat(int64_t number) { return (indices){0} + (lane_index)number; }

/* `yes` in the lanes whose bits in `which` are ones, else `no`. */
INLINE indices select_by(indices which, indices yes, indices no) { return (which & yes) | (~which & no); }

/* As load_channels. */
INLINE indices load_indices(const unsigned char *from, int64_t block, int64_t channels) {
  bytes v = {0};
  const int64_t left = channels - block * LANES;
  if (left >= LANES)
    v = *(const bytes *)(from + block * LANES);
  else
    memcpy(&v, from + block * LANES, (size_t)left);
  return __builtin_convertvector(v, indices);
}

/* As store_channels. */
INLINE void store_indices(unsigned char *to, int64_t block, int64_t channels, indices v) {
  const bytes narrow = __builtin_convertvector(v, bytes);
  const int64_t left = channels - block * LANES;
  if (left >= LANES)
    *(bytes *)(to + block * LANES) = narrow;
  else
    memcpy(to + block * LANES, &narrow, (size_t)left);
}

/* Along an axis: the pixel under a window's first element, and which elements lie inside the image. */
typedef struct {
  int64_t start, begin, end;
} range;

/* The range of window `number` along an axis of `side` pixels. */
INLINE range window_range(const window *w, int64_t number, int64_t side) {
  const int64_t start = number * w->stride - w->padding;
  return (range){start, start < 0 ? -start : 0, min_of(w->size, side - start)};
}

/* Comparisons of a pooling, some of which are done at a time. */
INLINE int64_t pooling_work(const window *w) {
  return w->batch * w->out_height * w->out_width * w->channels * w->size * w->size;
}

/* Maxima of `from` [batch, height, width, channels], and their indices unless `at` is NULL. */
void max_pool(const window *w, const REAL *from, REAL *to, unsigned char *at) {
  const int64_t c = w->channels, vectors = (c + LANES - 1) / LANES;
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads_for(w->threads, pooling_work(w)))
  for (int64_t n = 0; n < w->batch; n++)
    for (int64_t h = 0; h < w->out_height; h++) {
      const range rows = window_range(w, h, w->height);
      for (int64_t v = 0; v < w->out_width; v++) {
        const range columns = window_range(w, v, w->width);
        const int64_t pixel = (n * w->out_height + h) * w->out_width + v;
        for (int64_t b = 0; b < vectors; b++) {
          const int64_t first = ((n * w->height + rows.start) * w->width + columns.start) * c;
          vector largest = load_channels(from + first + (rows.begin * w->width + columns.begin) * c, b, c);
          indices argmax = splat(rows.begin * w->size + columns.begin);
          for (int64_t i = rows.begin; i < rows.end; i++)
            for (int64_t j = columns.begin; j < columns.end; j++) {
              const vector x = load_channels(from + first + (i * w->width + j) * c, b, c);
              const indices is_larger = (indices)(x > largest) | (indices)(x != x);
              largest = (vector)select_by(is_larger, (indices)x, (indices)largest);
              argmax = select_by(is_larger, splat(i * w->size + j), argmax);
            }
          store_channels(to + pixel * c, b, c, largest);
          if (at) store_indices(at + pixel * c, b, c, argmax);
        }
      }
    }
}

/* Gradient of the images from that of the maxima. */
void max_pool_backward(const window *w, const REAL *gradient, const unsigned char *at, REAL *to) {
  const int64_t c = w->channels, vectors = (c + LANES - 1) / LANES, image = w->height * w->width * c;
#pragma omp parallel for schedule(static) num_threads(threads_for(w->threads, pooling_work(w)))
  for (int64_t n = 0; n < w->batch; n++) {
    memset(to + n * image, 0, (size_t)image * sizeof(REAL));
    for (int64_t h = 0; h < w->out_height; h++) {
      const range rows = window_range(w, h, w->height);
      for (int64_t v = 0; v < w->out_width; v++) {
        const range columns = window_range(w, v, w->width);
        const int64_t pixel = (n * w->out_height + h) * w->out_width + v;
        for (int64_t b = 0; b < vectors; b++) {
          const vector own = load_channels(gradient + pixel * c, b, c);
          const indices argmax = load_indices(at + pixel * c, b, c);
          for (int64_t i = rows.begin; i < rows.end; i++)
            for (int64_t j = columns.begin; j < columns.end; j++) {
              REAL *there = to + n * image + ((rows.start + i) * w->width + columns.start + j) * c;
              const vector share = (vector)((indices)(argmax == splat(i * w->size + j)) & (indices)own);
              store_channels(there, b, c, load_channels(there, b, c) + share);
            }
        }
      }
    }
  }
}
