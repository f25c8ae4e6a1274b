"""Run in a process of its own: heads, loss terms and gradients of one backend, to a file.

Usage: ``KERAS_BACKEND=jax python backend_probe.py weights.npz out.npz``
"""

import sys

import keras
import numpy as np
from keras import ops

from kp2d.methods.networks import get_preset
from kp2d.train.learner import KeypointLearner
from kp2d.train.recipes import from_recipe
from kp2d.train.terms import loss_terms, term_weights

SIZE = (24, 32)


def make_batch(batch_size=2):
    rng = np.random.default_rng(0)
    small = rng.uniform(0, 255, (2, batch_size, SIZE[0], SIZE[1], 3)).astype(np.uint8)
    homography = np.eye(3) + rng.normal(0, [[0.05, 0.05, 1], [0.05, 0.05, 1], [1e-4, 1e-4, 0]])
    rows, columns = SIZE[0] // 4, SIZE[1] // 4
    corners = rng.uniform(0, 1, (2, batch_size, rows, columns, 4)).astype(np.float32)
    return {
        "image0": small[0],
        "image1": small[1],
        "homography": np.stack([homography] * batch_size).astype(np.float32),
        "corners0": corners[0],
        "corners1": corners[1],
    }


def gradients(learner, batch, total):
    """Gradient of ``total(heads)`` in every trainable variable."""
    variables = learner.trainable_variables
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            value = total(learner(batch, training=True))
        return tape.gradient(value, [v.value for v in variables])
    if backend == "torch":
        value = total(learner(batch, training=True))
        value.backward()
        return [variable.value.grad for variable in variables]
    import jax

    fixed = [variable.value for variable in learner.non_trainable_variables]

    def loss(trainable):
        heads, _ = learner.stateless_call(trainable, fixed, batch, training=True)
        return total(heads)

    return jax.jit(jax.grad(loss))([variable.value for variable in variables])


def compiled(function):
    """JAX compiles every operation by itself otherwise, which takes far longer."""
    if keras.backend.backend() != "jax":
        return function
    import jax

    return jax.jit(function)


def main(weights_path, out_path):
    config = from_recipe("kp2d_plus", data="-", output="-", image_size=SIZE)
    learner = KeypointLearner(get_preset("kp2d_tiny_s"), config)
    with np.load(weights_path) as weights:
        for variable in learner.network.weights:
            variable.assign(weights[variable.path])
    batch = make_batch()
    tensors = {name: ops.convert_to_tensor(value) for name, value in batch.items()}
    heads = compiled(lambda given: learner(given, training=False))(tensors)
    wanted = term_weights(config.loss)

    def total(heads):
        terms = loss_terms(heads, tensors, config.loss, 4)
        return sum(wanted[name] * value for name, value in terms.items())

    terms = compiled(lambda given: loss_terms(given, tensors, config.loss, 4))(heads)
    arrays = {f"head/{name}": value for name, value in heads.items()}
    arrays |= {f"term/{name}": value for name, value in terms.items()}
    grads = gradients(learner, tensors, total)
    for variable, grad in zip(learner.trainable_variables, grads, strict=True):
        if grad is not None:
            arrays[f"grad/{variable.path}"] = grad
    np.savez(out_path, **{name: ops.convert_to_numpy(value) for name, value in arrays.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
