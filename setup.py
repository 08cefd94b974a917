"""Install with ``pip install -e .``. Tool settings live in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

TIMM = ["timm>=1.0.16"]
PLOTS = ["scikit-learn>=1.5"]
EXPORT = ["onnx>=1.19", "onnxruntime>=1.23", "onnxscript>=0.5.6"]  # torch.onnx writes by the last
# For those who ask for it, see densevit/data/video.py. It has wheels for these machines only.
DECORD = "decord>=0.6; platform_machine in 'x86_64 AMD64' and sys_platform in 'linux win32'"
WEB = ["gradio>=6.31"]  # pages of some before have the browser ask other hosts
DOCS = ["furo>=2025.7", "myst-parser>=4", "sphinx>=8.1", "sphinx-copybutton>=0.5.2"]
BROWSER = ["playwright>=1.50"]  # drives the Chromium that is there; it is asked for none of its own
PYTEST = ["pytest>=8", "pytest-timeout>=2.3", "pytest-xdist>=3.6"]
PEERS = ["pycocotools>=2.0.8", "transformers>=5.0", *TIMM]
TEST = [*PYTEST, *PEERS, *PLOTS, *EXPORT]

# Folders of configs, which are found by name: see densevit/engine/config.py.
CONFIGS = ["densevit.configs", "densevit.configs._base_", "densevit.configs.demo"]

setup(
    name="densevit",
    version="0.1.0",
    description="Dense prediction with interchangeable vision backbones",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=[*find_packages(include=["densevit", "densevit.*"]), *CONFIGS],
    package_data={"densevit": ["py.typed", "web/pages/*.css"]},
    entry_points={"console_scripts": ["densevit = densevit.commands:main"]},
    python_requires=">=3.10",
    # What `make test` was run on.
    classifiers=[f"Programming Language :: Python :: 3.{minor}" for minor in (10, 11, 13)],
    install_requires=[
        "torch>=2.10",
        "torchvision>=0.25",  # the release made for torch 2.10
        "numpy>=2",
        "pillow>=11",
        "opencv-python>=4.10",
        "mmengine>=0.10.7",
        "mmcv-lite>=2.2",  # imports as mmcv, needs no compiler
        "matplotlib>=3.9",
        "rich>=13.7",
        "safetensors>=0.4.5",
        "tensorboard>=2.18",
        "faster-coco-eval>=1.7",
        "av>=15",  # reads and writes videos
        "nibabel>=5.4",
        "packaging>=24",
        "monai>=1.6",
        "einops>=0.8",  # of MONAI's attention blocks
        "scipy>=1.13",  # of MONAI's distances of surfaces
        DECORD,
    ],
    extras_require={
        "timm": TIMM,
        "plots": PLOTS,
        "export": EXPORT,
        "web": WEB,
        "docs": DOCS,
        "test": TEST,
        "dev": [*TEST, *WEB, *BROWSER, *DOCS, "mypy>=1.13", "pre-commit>=4", "ruff>=0.8"],
    },
)
