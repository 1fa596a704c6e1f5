from __future__ import annotations
from tests.integration.jobs import work
from tests.integration.site import Site
import time

def test_x(site: Site) -> None:
    t=time.time()
    site.start()
    print("start", time.time()-t)
    sent = work.enqueue_many([(0.01,)]*200)
    account = site.account(sent)
    print(time.time()-t)
    assert account.reruns == 0
    t=time.time()
    assert site.workers[0].stop() == 0
    print("stop", time.time()-t)
