/* The largest of every window of channels-last images, and where in the window it is, for stages.c.
 *
 * Positions count through the window's rows; of equal ones the first is taken, and one that is not a number
 * before all others, as torch does.
 */

typedef struct {
  int64_t batch, height, width, channels;
  int64_t size, stride, padding, out_height, out_width;
  int64_t threads;
} window;

typedef __typeof__(__builtin_choose_expr(sizeof(REAL) == 4, (int32_t)0, (int64_t)0)) place;
typedef place places __attribute__((vector_size(VECTOR_BYTES)));
typedef unsigned char bytes __attribute__((vector_size(VECTOR_BYTES / sizeof(REAL)), aligned(1)));

INLINE places all_at(int64_t number) { return (places){0} + (place)number; }

INLINE places chosen(places which, places yes, places no) { return (which & yes) | (~which & no); }

INLINE bytes load_places(const unsigned char *from, int64_t block, int64_t channels) {
  bytes v = {0};
  const int64_t left = channels - block * LANES;
  memcpy(&v, from + block * LANES, (size_t)smaller(left, LANES));
  return v;
}

/* `from` [batch, height, width, channels] to the windows' largest, and their places if they are asked for. */
void max_pool(const window *w, const REAL *from, REAL *to, unsigned char *at) {
  const int64_t c = w->channels, blocks = (c + LANES - 1) / LANES;
#pragma omp parallel for collapse(2) schedule(static) num_threads((int)w->threads)
  for (int64_t n = 0; n < w->batch; n++)
    for (int64_t h = 0; h < w->out_height; h++) {
      const int64_t top = h * w->stride - w->padding;
      const int64_t above = top < 0 ? -top : 0, below = smaller(w->size, w->height - top);
      for (int64_t v = 0; v < w->out_width; v++) {
        const int64_t left = v * w->stride - w->padding, pixel = (n * w->out_height + h) * w->out_width + v;
        const int64_t before = left < 0 ? -left : 0, after = smaller(w->size, w->width - left);
        for (int64_t b = 0; b < blocks; b++) {
          vector largest = load_block(from + ((n * w->height + top + above) * w->width + left + before) * c,
                                      b, c);
          places found = all_at(above * w->size + before);
          for (int64_t i = above; i < below; i++)
            for (int64_t j = before; j < after; j++) {
              const vector x = load_block(from + ((n * w->height + top + i) * w->width + left + j) * c, b, c);
              const places is_larger = (places)(x > largest) | (places)(x != x);
              largest = (vector)chosen(is_larger, (places)x, (places)largest);
              found = chosen(is_larger, all_at(i * w->size + j), found);
            }
          store_block(to + pixel * c, b, c, largest);
          if (at) {
            const bytes narrow = __builtin_convertvector(found, bytes);
            memcpy(at + pixel * c + b * LANES, &narrow, (size_t)smaller(c - b * LANES, LANES));
          }
        }
      }
    }
}

/* Gradient of the images from that of the windows' largest; each pixel gathers from the windows it is in. */
void max_pool_backward(const window *w, const REAL *gradient, const unsigned char *at, REAL *to) {
  const int64_t c = w->channels, blocks = (c + LANES - 1) / LANES;
#pragma omp parallel for collapse(2) schedule(static) num_threads((int)w->threads)
  for (int64_t n = 0; n < w->batch; n++)
    for (int64_t h = 0; h < w->height; h++) {
      const int64_t lowest = h + w->padding - w->size + w->stride, bottom = (h + w->padding) / w->stride;
      const int64_t first_row = lowest < 0 ? 0 : lowest / w->stride;
      for (int64_t v = 0; v < w->width; v++) {
        const int64_t leftmost = v + w->padding - w->size + w->stride, right = (v + w->padding) / w->stride;
        const int64_t first_column = leftmost < 0 ? 0 : leftmost / w->stride;
        for (int64_t b = 0; b < blocks; b++) {
          vector sum = {0};
          for (int64_t i = first_row; i <= bottom && i < w->out_height; i++)
            for (int64_t j = first_column; j <= right && j < w->out_width; j++) {
              const int64_t pixel = ((n * w->out_height + i) * w->out_width + j) * c;
              const int64_t own = (h + w->padding - i * w->stride) * w->size + v + w->padding - j * w->stride;
              const places found = __builtin_convertvector(load_places(at + pixel, b, c), places);
              const places is_here = (places)(found == all_at(own));
              sum += (vector)(is_here & (places)load_block(gradient + pixel, b, c));
            }
          store_block(to + ((n * w->height + h) * w->width + v) * c, b, c, sum);
        }
      }
    }
}
