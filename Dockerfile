# Cingulum as a BIDS App, CPU only:
#   docker build -t cingulum .
#   docker run --rm --user $(id -u):$(id -g) -v DATASET:/data:ro -v RESULTS:/out cingulum run /data /out participant
FROM python:3.11-slim

LABEL org.opencontainers.image.title="cingulum" org.opencontainers.image.licenses="BSD-3-Clause"

# Pins hold for what builds the package too. pip keeps nothing; the second index has torch without CUDA.
ENV PIP_CONSTRAINT=/opt/cingulum/constraints.txt \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
WORKDIR /opt/cingulum
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
RUN pip install ".[cluster]"

# A home that any --user may write to: machine code is kept in ~/.cache.
RUN useradd --create-home --home-dir /home/cingulum cingulum && chmod 1777 /home/cingulum
ENV HOME=/home/cingulum \
    OMP_NUM_THREADS=1 \
    MPLBACKEND=Agg
USER cingulum
WORKDIR /home/cingulum

ENTRYPOINT ["cingulum"]
CMD ["--help"]
