# Fount: every task by one name. `make` lists them. A fresh clone needs Python 3.11 or newer and make, nothing else.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
PROTO_BIN := .venv-proto/bin
PROTO_INSTALLED := .venv-proto/.installed
PIP_OPTIONS := --disable-pip-version-check
ARCHIVES := build/archives
# One of each kind: as many as are loaded at the start.
DEMO_MODELS := digits-classifier digits-cvae digits-gmm density-2d mnist-classifier mnist-cgan mnist-cvae mnist-vae
DEMO_ARCHIVES := build/demo-archives
# Tests of one file, and all end-to-end tests, which share their stacks, run in one process: see tests/conftest.py.
PARALLEL := -n 2 --dist loadscope --no-loadscope-reorder

PROTOS := $(wildcard protos/fount/*/*.proto protos/fount/*/*/*.proto)
SERVICE_PROTOS := $(wildcard protos/fount/v1/*.proto protos/fount/runner/v1/*.proto protos/fount/worker/v1/*.proto)
PROTOC := $(PROTO_BIN)/python -m grpc_tools.protoc -I protos -I protos/third_party \
	--plugin=protoc-gen-mypy=$(PROTO_BIN)/protoc-gen-mypy --plugin=protoc-gen-mypy_grpc=$(PROTO_BIN)/protoc-gen-mypy_grpc

# $(call generate,FOLDER): messages of every package, services of those that have any. The plug-ins name each file they write.
define generate
	$(PROTOC) --python_out=$(1) --mypy_out=quiet:$(1) $(PROTOS)
	$(PROTOC) --grpc_python_out=$(1) --mypy_grpc_out=quiet:$(1) $(SERVICE_PROTOS)
endef

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install proto proto-check demo serve archives test test-full bench soak check format clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

install: $(INSTALLED) ## create .venv with every pinned dependency

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Fount needs Python 3.11 or newer: make PYTHON=python3.11 install")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install $(PIP_OPTIONS) -c constraints.txt -e '.[serve,torch,dev]'
	touch $@

$(PROTO_INSTALLED): requirements-proto.txt
	test -x $(PROTO_BIN)/python || $(PYTHON) -m venv .venv-proto
	$(PROTO_BIN)/pip install $(PIP_OPTIONS) -r requirements-proto.txt
	touch $@

proto: $(PROTO_INSTALLED) ## regenerate fount/**/*_pb2* from protos/
	find fount -name '*_pb2*.py*' -not -path '*/__pycache__/*' -delete
	$(call generate,.)

proto-check: $(PROTO_INSTALLED)
	rm -rf build/proto && mkdir -p build/proto/committed build/proto/generated
	find fount -name '*_pb2*.py*' -not -path '*/__pycache__/*' | tar -c -T - -f - | tar -x -f - -C build/proto/committed
	$(call generate,build/proto/generated)
	diff -ru build/proto/committed build/proto/generated || { echo 'generated code differs: run make proto'; exit 1; }

archives: $(INSTALLED) ## pack every model of model_store/ into build/archives
	$(BIN)/fount pack --all --out $(ARCHIVES)

demo: $(INSTALLED) ## serve models of every kind, draw images into demo/, stop
	rm -rf $(DEMO_ARCHIVES)
	$(BIN)/fount pack $(DEMO_MODELS) --out $(DEMO_ARCHIVES)
	$(BIN)/fount demo --archives $(DEMO_ARCHIVES) --out demo

serve: archives ## serve on 127.0.0.1:50051 until Ctrl-C
	exec $(BIN)/fount serve --archives $(ARCHIVES)

test: $(INSTALLED) ## every test but the slow ones, in two processes
	$(BIN)/pytest -m 'not slow' $(PARALLEL)

test-full: $(INSTALLED) ## every test, with coverage, which makes them half as long again
	$(BIN)/pytest $(PARALLEL) --cov --cov-report=term:skip-covered

bench: $(INSTALLED) ## measure against the hardware, TorchServe, mosec, LitServe and one process; QUICK=1: short rounds
	$(BIN)/python -m benchmarks $(if $(QUICK),--quick)
	$(BIN)/python -m benchmarks.augmentation $(if $(QUICK),--quick)
	$(BIN)/python -m benchmarks.evaluation $(if $(QUICK),--quick)

soak: $(INSTALLED) ## ten minutes at full load under random kills: benchmarks/results/soak.md
	$(BIN)/python -m benchmarks.soak

check: $(INSTALLED) proto-check ## lint, types, contract, generated code, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd protos && ../$(BIN)/buf lint
	$(BIN)/lint-imports
	$(BIN)/deptry .

format: $(INSTALLED) ## rewrite the code in the house format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove what was built; the virtual environments stay
	rm -rf build demo dist .mypy_cache .ruff_cache .pytest_cache *.egg-info
	find fount service handlers tests -name __pycache__ -type d -prune -exec rm -rf {} +
