# Two commands do everything on a machine with Python 3.10+ and make:
#   make demo   environment, installation, the phantom cohort through the whole pipeline; the report's path comes last
#   make test   the same environment with the test extras: linters, type check, tests, the numerics as on other CPUs
# Two more, for those who publish:
#   make docs         the pages and the API reference as a site that opens from disk: site/index.html
#   make wheel-test   the wheel, installed away from this checkout: prepare, train, predict, the bundle
# One for a machine with a GPU, which installs nothing:
#   make gpu          the tests that need one, and all benchmarks on it: docs/results/gpu-DATE.json, in nine minutes at most
# And one that asks PyPI:
#   make audit        known holes in the pinned dependencies, and in the lowest that pyproject.toml admits
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OUTPUT ?= demo/$(shell date +%Y%m%d-%H%M%S)
PIP := $(BIN)/python -m pip --disable-pip-version-check

# What another CPU computes otherwise (no kernel of a GPU does, no sizes and no networks of MONAI's do); and of that what
# PyTorch takes over where there is no Numba. Both without what is in double precision, which no kernel of ours takes.
NUMERICS := --ignore tests/networks/cuda --ignore tests/networks/test_geometry.py \
	--ignore tests/networks/test_monai_overlays.py --ignore tests/networks/test_monai_weights.py \
	tests/networks tests/losses/sums/cpu tests/losses/sums/test_overlap.py \
	tests/contracts/test_networks.py tests/contracts/test_losses.py tests/test_older_cpu.py
PLAIN := tests/losses/sums/test_overlap.py tests/contracts/test_networks.py tests/contracts/test_losses.py \
	tests/networks/test_highresnet.py tests/networks/test_deepmedic.py \
	tests/networks/cpu/test_convolution.py tests/pipeline/test_doctor.py tests/test_older_cpu.py
PYTEST = $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# Some images set it: every process would then compile all sources anew, and pytest rewrite all tests.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test numerics lint install clean docs wheel-test audit gpu
.DEFAULT_GOAL := demo

demo: $(VENV)/demo.done
	$(BIN)/rarevox demo --output $(OUTPUT)

test: lint
	$(PYTEST) --durations=10
	$(MAKE) numerics

# The numerics as on other machines: a CPU with AVX2 alone and kernels for any CPU, and a machine without Numba.
numerics: $(VENV)/test.done
	ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 NUMBA_CPU_NAME=generic $(PYTEST) --older-cpu -m 'not float64' $(NUMERICS)
	$(PYTEST) --without-numba -m 'not float64' $(PLAIN)

lint: $(VENV)/test.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/docs.done
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo site/index.html

wheel-test: $(VENV)/test.done
	$(BIN)/python -m pytest tests/test_wheel.py tests/installed_wheel.py

# With what is there: the environment of this checkout, or a Python that has PyTorch and the rest.
gpu:
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) benchmarks/gpu.py

audit: $(VENV)/audit/done
	@$(VENV)/audit/bin/python tests/audit.py

install: $(VENV)/demo.done

# `rarevox` is no folder: its sub-packages are the top-level ones. mypy finds them through this link, and so does Python:
# the hook of an editable installation is asked last, after a folder named `rarevox` in the working directory (results,
# say); of two folders on the path, the one that holds packages is taken.
$(VENV)/names.done: | $(BIN)/activate
	mkdir -p $(VENV)/names
	ln -sfn $(CURDIR) $(VENV)/names/rarevox
	$(BIN)/python -c 'import pathlib as p, sysconfig as s; p.Path(s.get_path("purelib"), "rarevox_names.pth").write_text(str(p.Path("$(VENV)/names").resolve()) + "\n")'
	touch $@

$(BIN)/activate:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.done: pyproject.toml constraints.txt | $(VENV)/names.done
	$(PIP) install --quiet --constraint constraints.txt --editable '.[demo]'
	touch $@

$(VENV)/test.done: pyproject.toml constraints.txt | $(VENV)/names.done
	$(PIP) install --quiet --constraint constraints.txt --editable '.[demo,test]'
	touch $(VENV)/demo.done $(VENV)/docs.done $@

$(VENV)/docs.done: pyproject.toml constraints.txt | $(VENV)/names.done
	$(PIP) install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

# An environment of its own: what asks about dependencies is none of them.
$(VENV)/audit/done:
	$(PYTHON) -m venv $(VENV)/audit
	@$(VENV)/audit/bin/python -m pip --disable-pip-version-check install -qq 'pip-audit>=2.7' || \
	  { echo 'make audit: pip-audit cannot be installed, and nothing is known of the dependencies; try again where PyPI can be reached' >&2; exit 2; }
	touch $@

clean:
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
