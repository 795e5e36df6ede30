# Everything a developer runs.  `make help` lists it.  `make demo PYTHON=python3.12` chooses the Python for .venv.

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
NETWORKS ?= 5000
MUTATIONS ?= 3000

bin := $(VENV)/bin
# A module's tests stay together, so that what they share is made once; who is done first takes some of the others'.
# A thread each, in the processes that they start too: more than there are cores wait for each other.
pytest := OMP_NUM_THREADS=1 $(bin)/python -m pytest --numprocesses $(JOBS) --dist worksteal
install := $(bin)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# What builds the packages that come as source: this one, and pyvips.
build_tools := setuptools pkgconfig cffi

.DEFAULT_GOAL := help
.PHONY: help demo check lint types docs test test-processors engines ray web arm fuzz mutants wheel-check bench clean
.NOTPARALLEL:

help:  ## This list
	@sed -n 's/^\([a-z-]*\):.*## */\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  make %-12s %s\n", $$1, $$2 }'

demo: $(VENV)/.installed  ## Convert the shipped teacher, shrink it, upscale photographs; results in demo-output
	$(bin)/python examples/demo.py

check: lint types docs wheel-check test  ## All of the next five, as CI does

lint: $(VENV)/.installed-dev  ## ruff: rules and format
	$(bin)/ruff check .
	$(bin)/ruff format --check .

types: $(VENV)/.installed-dev  ## mypy, strict
	@test -d memsr_compiler/passes || { echo "memsr_compiler/passes is no symbolic link here, which mypy needs: git config core.symlinks true && git checkout -- memsr_compiler/passes"; exit 1; }
	$(bin)/mypy

docs: $(VENV)/.installed-dev  ## The site, into build/docs; a link to nowhere or a page that nothing leads to is an error
	$(bin)/python -m sphinx --quiet --fail-on-warning --keep-going --fresh-env -c docs -d build/doctrees . build/docs

wheel-check: $(VENV)/.installed-dev  ## Build sdist and wheel, install the wheel elsewhere, import and run it
	rm -rf dist
	$(bin)/python -m build --quiet --no-isolation .
	$(bin)/python .ci/wheel_check.py dist

test: $(VENV)/.installed-dev  ## The tests; one file: .venv/bin/pytest tests/whole/test_layout.py
	$(pytest)

test-processors: $(VENV)/.installed-dev  ## The tests as processors without AVX512 and without AVX round, and without oneDNN
	ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 $(pytest)
	ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 $(pytest)
	$(pytest) --without-mkldnn

engines: $(VENV)/.installed-engines  ## ncnn, MNN, OpenVINO and the web page beside ONNX Runtime (make web and make arm first)
	$(pytest) tests/deployment

ray: $(VENV)/.installed-ray  ## Two workers of Ray on this machine, one of them killed; Ray and what it needs are 150 MB
	$(bin)/python -m pytest tests/distributed

web: examples/web/runtime  ## What examples/web needs: ONNX Runtime Web from npm, and a student

arm: build/arm/python  ## A phone's processor, emulated, for make engines; needs debootstrap and qemu-user-static

fuzz: $(VENV)/.installed-dev  ## Compile 5,000 random networks and compare; damage 3,000 files of each kind (NETWORKS=n MUTATIONS=n)
	$(pytest) tests/whole/test_fuzz.py --networks $(NETWORKS)
	MEMSR_MUTATIONS=$(MUTATIONS) $(pytest) tests/whole/test_fuzz_files.py

mutants: $(VENV)/.installed-dev  ## Make small mistakes in passes, analysis, proof and kernels; their tests must notice each
	$(bin)/python tests/mutants.py --jobs $(JOBS)

bench: $(VENV)/.installed-dev  ## The numbers in the documentation that need no data beyond what ships
	$(bin)/python benchmarks/compile_time.py
	$(bin)/python benchmarks/precision.py
	$(bin)/python -m benchmarks.paper table4 table11

clean:  ## Remove what was built or cached; not .venv
	rm -rf build dist demo-output *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or later is needed, say: make PYTHON=python3.12" if sys.version_info < (3, 10) else 0)'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.created setup.cfg pyproject.toml constraints.txt
	@echo "Installing into $(VENV); the first time torch is fetched, which takes a while"
	@$(install) $(build_tools)
	@$(install) --no-build-isolation --editable '.[cpu]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.created setup.cfg pyproject.toml constraints.txt
	@echo "Installing into $(VENV); the first time torch is fetched, which takes a while"
	@$(install) $(build_tools)
	@$(install) --no-build-isolation --editable '.[cpu,train,tflite,video,dev,docs]'
	@touch $(VENV)/.installed $@

$(VENV)/.installed-engines: $(VENV)/.installed-dev
	@$(install) --no-build-isolation --editable '.[cpu,engines]'
	@touch $@

$(VENV)/.installed-ray: $(VENV)/.installed-dev
	@$(install) --no-build-isolation --editable '.[cpu,ray]'
	@touch $@

examples/web/runtime: $(VENV)/.installed examples/web/prepare.py
	$(bin)/python examples/web/prepare.py
	@touch $@

build/arm/python:
	PIP=$(bin)/pip bash benchmarks/arm.sh build/arm
