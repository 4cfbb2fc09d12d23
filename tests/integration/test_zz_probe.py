import time
from datetime import UTC, datetime, timedelta
D = datetime(2024, 2, 1, tzinfo=UTC)
def test_probe(project):
    for i in range(4):
        t=time.time(); r = project.window("run", D+timedelta(days=i)); print(i, time.time()-t, r.code, r.out, r.err)
    t=time.time(); r = project.window("assess", D+timedelta(days=1)); print("assess", time.time()-t, r.code)
    t=time.time(); r = project.window("profile", D+timedelta(days=1)); print("profile",time.time()-t, r.code)
    print(len(project.active_runs(D)))
    assert 0
def test_probe2(own_registry):
    t=time.time(); r = own_registry.window("run", D); print(time.time()-t, r.code, r.out, r.err)
    assert 0
