"""A model whose rows tell it what to do; MLflow logs this file as the model's code."""

import os
import signal
import subprocess
import sys
import time

import mlflow
import numpy as np

EXIT, KILL, REFUSE, BUG, SLEEP, ENVIRONMENT, LEAVE_A_CHILD = (float(1000 + i) for i in range(7))


class OddModel(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        print("printed by the model")
        os.write(1, b"written to fd 1\n")
        print("fetched https://me:secret@index.example/simple", file=sys.stderr, flush=True)
        assert sys.stdin.read() == ""
        said = set(model_input["x"]) & {EXIT, KILL, REFUSE, BUG, SLEEP, ENVIRONMENT, LEAVE_A_CHILD}
        if EXIT in said:
            os._exit(7)
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
        if LEAVE_A_CHILD in said and os.fork():
            os._exit(7)
        if LEAVE_A_CHILD in said:
            subprocess.run(["sleep", "5"], check=False)
            os._exit(0)
        return 2 * model_input["x"].to_numpy() + np.where(model_input["kind"].to_numpy() == "b", 1.0, 0.0)


mlflow.models.set_model(OddModel())
