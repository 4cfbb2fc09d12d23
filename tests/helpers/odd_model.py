"""A model whose rows tell it what to do; MLflow logs this file as the model's code."""

import os
import signal
import sys
import time

import mlflow
import numpy as np
import pandas as pd

KILL, REFUSE, BUG, SLEEP, ENVIRONMENT, EXIT = (float(1000 + i) for i in range(6))


class OddModel(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input: pd.DataFrame, params=None):
        sys.stdout.write("printed by the model\n")
        os.write(1, b"written to fd 1\n")
        sys.stderr.write("fetched https://me:secret@index.example/simple\n")
        assert sys.stdin.read() == ""
        said = set(model_input["x"]) & {KILL, REFUSE, BUG, SLEEP, ENVIRONMENT, EXIT}
        if KILL in said:
            os.kill(os.getpid(), signal.SIGKILL)
        if REFUSE in said:
            raise ValueError("this row is not for me")
        if BUG in said:
            raise ZeroDivisionError("the model has a bug")
        if SLEEP in said:
            time.sleep(600)
        if ENVIRONMENT in said:
            raise ValueError(" ".join(sorted(os.environ)))
        if EXIT in said and os.fork():
            os._exit(7)
        if EXIT in said:  # the child holds the pipes open
            time.sleep(60)
            os._exit(0)
        return 2 * model_input["x"].to_numpy() + np.where(model_input["kind"].to_numpy() == "b", 1.0, 0.0)


mlflow.models.set_model(OddModel())
