// From the three heads of a kp2d network in int8 to keypoints and descriptors, as kp2d.methods.decode does it.
// C99 and C++; no memory of its own, no library but sqrtf. Licence: MIT, as kp2d.
#ifndef KP2D_DECODE_H_
#define KP2D_DECODE_H_

#include <math.h>
#include <stdint.h>

typedef struct {
  int rows, columns;                              // of the score's grid
  int cell;                                       // px: g_NAME_cell
  int descriptor_rows, descriptor_columns, dim;   // of the descriptor's map
  const int8_t *score, *offset, *descriptor;      // what the network computed
  const float *scores;                            // what each of the 256 levels means: g_NAME_scores
  float offset_scale, descriptor_scale;           // quantization of these two outputs
  int offset_zero, descriptor_zero;               // and their zero points
} kp2d_heads;

typedef struct {
  float x, y;   // px; the centre of the top-left pixel is (0, 0)
  float score;  // 0 to 1
} kp2d_keypoint;

static float kp2d_clip(float value, float low, float high) {
  return value < low ? low : value > high ? high : value;
}

static kp2d_keypoint kp2d_place(const kp2d_heads *heads, int row, int column, float score) {
  const int8_t *offset = heads->offset + 2 * (row * heads->columns + column);
  const float reach = (float)(heads->cell - 1), centre = reach / 2;  // an offset of 1 moves by `reach` px
  const float dx = heads->offset_scale * (float)(offset[0] - heads->offset_zero);
  const float dy = heads->offset_scale * (float)(offset[1] - heads->offset_zero);
  kp2d_keypoint keypoint;
  keypoint.x = kp2d_clip(heads->cell * column + centre + dx * reach, 0, heads->cell * heads->columns - 1);
  keypoint.y = kp2d_clip(heads->cell * row + centre + dy * reach, 0, heads->cell * heads->rows - 1);
  keypoint.score = score;
  return keypoint;
}

// Writes at most `top_k` keypoints with a score above the threshold, best first; returns how many.
static int kp2d_keypoints(const kp2d_heads *heads, float threshold, int top_k, kp2d_keypoint *keypoints) {
  int count = 0;
  for (int high = 255, low; high >= 0 && heads->scores[high] > threshold; high = low - 1) {
    // Several levels may mean one score; then the place in the grid decides, as in Python.
    for (low = high; low > 0 && heads->scores[low - 1] == heads->scores[high]; --low) {}
    for (int row = 1; row < heads->rows - 1; ++row) {  // cells on the border have no keypoints
      for (int column = 1; column < heads->columns - 1; ++column) {
        const int level = heads->score[row * heads->columns + column] + 128;
        if (level < low || level > high) continue;
        if (count == top_k) return count;
        keypoints[count++] = kp2d_place(heads, row, column, heads->scores[level]);
      }
    }
  }
  return count;
}

// Reads the descriptor of a keypoint, `dim` numbers of unit length, between four places of the map.
static void kp2d_descriptor(const kp2d_heads *heads, kp2d_keypoint keypoint, float *descriptor) {
  const int rows = heads->descriptor_rows, columns = heads->descriptor_columns, dim = heads->dim;
  float x, y;
  if (rows > heads->rows) {  // the corners of the map lie on the corners of the image
    x = keypoint.x * ((float)(columns - 1) / (float)(heads->cell * heads->columns - 1));
    y = keypoint.y * ((float)(rows - 1) / (float)(heads->cell * heads->rows - 1));
  } else {  // a map as coarse as the cells, or coarser: each place is in the middle of its own
    const int step = heads->cell * ((heads->rows + rows - 1) / rows);
    const float middle = (float)(step - 1) / 2;
    x = kp2d_clip((keypoint.x - middle) / step, 0, columns - 1);
    y = kp2d_clip((keypoint.y - middle) / step, 0, rows - 1);
  }
  const int left = (int)kp2d_clip(floorf(x), 0, columns - 2), top = (int)kp2d_clip(floorf(y), 0, rows - 2);
  const float wx = x - left, wy = y - top;
  const int8_t *upper = heads->descriptor + dim * (top * columns + left), *lower = upper + dim * columns;
  float squares = 0;
  for (int i = 0; i < dim; ++i) {
    const float above = upper[i] * (1 - wx) + upper[i + dim] * wx;
    const float below = lower[i] * (1 - wx) + lower[i + dim] * wx;
    descriptor[i] = heads->descriptor_scale * (above * (1 - wy) + below * wy - heads->descriptor_zero);
    squares += descriptor[i] * descriptor[i];
  }
  const float length = sqrtf(squares + 1e-12f);
  for (int i = 0; i < dim; ++i) descriptor[i] /= length;
}

#endif  // KP2D_DECODE_H_
