"""Every kind among good inputs, through each stage at once."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.hostile.calls import Called, call
from tests.hostile.home import Home
from tests.hostile.kinds import KINDS, REFUSED
import time

@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    folder = tmp_path_factory.mktemp("hostile") / "home"
    folder.mkdir()
    made = Home(folder)
    made.labels
    return made

def load(path): return json.loads(path.read_text('utf-8'))
def show(found):
    print(found.status, found.seconds, found.peak_bytes/1e6)
    Path('/tmp/wt/scratch/hostile/said').write_bytes(found.said.encode('utf-8','backslashreplace'))

def dataset(home, dataset_dir, name, **sections):
    d = load(dataset_dir/'dataset.json')
    d['root']=str(home.folder)
    d['folds']=2
    d |= {'training': [], 'test': []} | sections
    f=home.folder/name; f.mkdir()
    (f/'dataset.json').write_text(json.dumps(d))
    return f

def test_evaluate(home: Home, run_dir, dataset_dir) -> None:
    rows = [*home.good_rows(), *home.scan_rows(), *home.label_rows()]
    d = dataset(home, dataset_dir, 'evaluated', test=rows)
    run = shutil.copytree(run_dir, home.folder/'run')
    out = home.folder / "out_evaluate"
    t=time.time()
    found = call(["evaluate", run, d, "--output", out, "--device", "cpu"], home.folder, out)
    print(time.time()-t)
    show(found)
    m = load(out/'metrics.json')
    got={}
    for r in m['cases']: got.setdefault(r['case'],r)
    assert len(got)==len(rows)
    for k in KINDS.values():
        r=got[f'scan_{k.name}']
        o='refused' if r['status']=='failed' else 'read'
        if o != ('refused' if k.outcome=='refused' else 'read') or (k.outcome!='read' and not k.fits(r['reason'])): print('SCAN',k.name,k.outcome,'->',r['status'],r['reason'][:250])
    for k in KINDS.values():
        r=got[f'label_{k.name}']
        o='refused' if r['status']=='failed' else 'read'
        if k.outcome=='refused' and (o!='refused' or not k.fits(r['reason'])): print('LABEL',k.name,k.outcome,'->',r['status'],r['reason'][:250])
        if k.outcome!='refused': print('LABEL',k.name,k.outcome,'->',r['status'],r['reason'][:250])

@pytest.mark.parametrize('role',['prediction','reference'])
def test_score(home: Home, role) -> None:
    f=home.folder/f'score_{role}'
    bad, good = f/'bad', f/'good'
    bad.mkdir(parents=True); good.mkdir()
    lab=home.folder/'good'/'good_0'/'label.nii.gz'
    names={}
    for n in range(6):
        shutil.copy(lab, bad/f'good_{n}.nii.gz'); shutil.copy(lab, good/f'good_{n}.nii.gz')
    for name,p in home.kinds.items():
        (bad/name).symlink_to(home.folder/'kinds'/name)
        rel=p.relative_to(home.folder/'kinds'/name)
        from rarevox.pipeline.data.formats import stem
        (good/name).mkdir()
        if len(p.name)<255: shutil.copy(lab, good/name/f'{stem(rel)}.nii.gz'); names[name]=f'{name}_{stem(rel)}'
    out=f/'out'
    a=[bad,good] if role=='prediction' else [good,bad]
    t=time.time()
    found=call(["score",*a,"--output",out,"--structure","thing=1"],home.folder,out)
    print(time.time()-t); show(found)
    m=load(out/'metrics.json')
    got={r['case']:r for r in m['cases']}
    print(m['unmatched_predictions'])
    for k in KINDS.values():
        r=got.get(names.get(k.name))
        if r is None: print('NOROW',k.name); continue
        if k.outcome=='refused' and (r['status']!='failed' or not k.fits(r['reason'])): print(k.name,k.outcome,'->',r['status'],r['reason'][:200])
        if k.outcome!='refused' and (r['status']!='failed'): print(k.name,k.outcome,'->',r['status'],r['reason'][:200])

def test_agreement(home: Home) -> None:
    f=home.folder/'agreement'
    lab=home.folder/'good'/'good_0'/'label.nii.gz'
    for who in 'abc':
        (f/who).mkdir(parents=True)
        for n in range(6): shutil.copy(lab,f/who/f'good_{n}.nii.gz')
    names={}
    from rarevox.pipeline.data.formats import stem
    for name,p in home.kinds.items():
        (f/'c'/name).symlink_to(home.folder/'kinds'/name)
        rel=p.relative_to(home.folder/'kinds'/name)
        for who in 'ab':
            (f/who/name).mkdir()
            if len(p.name)<255: shutil.copy(lab, f/who/name/f'{stem(rel)}.nii.gz'); names[name]=f'{name}_{stem(rel)}'
    out=f/'out'
    t=time.time()
    found=call(["agreement",f/'a',f/'b',f/'c',"--output",out,"--structure","thing=1"],home.folder,out)
    print(time.time()-t); show(found)
    m=load(out/'agreement.json')
    print(m['n_cases'], len(m['missing']), [r for r in m['missing'] if r['annotator']!='c'][:5])
    got={r['case']:r for r in m['missing']}
    for k in KINDS.values():
        r=got.get(names.get(k.name))
        if r is None: print('NOROW',k.name); continue
        if k.outcome=='refused' and not k.fits(r['reason']): print(k.name,k.outcome,'->',r['reason'][:200])

@pytest.mark.parametrize('cache',['memory','disk'])
def test_train(home: Home, dataset_dir, cache) -> None:
    rows = [*home.good_rows(), *home.scan_rows(), *home.label_rows()]
    for n,r in enumerate(rows): r['fold']= int(n!=0 and not r['case'].startswith('scan_p') )
    d = dataset(home, dataset_dir, 'trained_'+cache, training=rows)
    c=load(d/'dataset.json'); c['labels']={'background':0,'ball':1,'box':2}; (d/'dataset.json').write_text(json.dumps(c))
    out = home.folder / ("out_train_"+cache)
    t=time.time()
    found = call(["train", d, "--output", out, "--device", "cpu","--iterations","3","--set","network_def#width=4","--set","patch_size=[8,8,8]","--set","precision#name=float32","--set","validation_cases=100","--set",f"cache={cache}","--set",f"cache_dir={out}/../cc"], home.folder, out)
    print(time.time()-t); show(found)
    got={}
    for line in found.said.splitlines():
        if line.startswith('left out '):
            case,_,reason=line[9:].partition(': '); got[case]=reason
    for k in KINDS.values():
        r=got.get(f'scan_{k.name}')
        if (r is None) != (k.outcome!='refused') or (r is not None and not k.fits(r)): print('SCAN',k.name,k.outcome,r)
    for k in KINDS.values():
        r=got.get(f'label_{k.name}')
        if k.outcome=='refused' and (r is None or not k.fits(r)): print('LABEL',k.name,k.outcome,r)
        if k.outcome!='refused' : print('LABEL',k.name,k.outcome,r)
    print(found.said[-3000:])
