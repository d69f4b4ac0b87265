"""Randomized smoothing: classifiers that vote under noise, and what their votes certify."""

from xrobust.smoothing.averaged import UnderNoise, mean_log_probability, noisy_logits
from xrobust.smoothing.bounds import lower_bound, votes_needed
from xrobust.smoothing.certify import Certify
from xrobust.smoothing.certify_at import CertifyAt
from xrobust.smoothing.classifier import SmoothedClassifier, SmoothedPrediction
from xrobust.smoothing.noise import GaussianNoise, Noise, UniformNoise
from xrobust.smoothing.predict import predict
from xrobust.smoothing.procedure import ABSTAIN, Procedure, SmoothedCertificate
from xrobust.smoothing.sequential import log_evidence_above, log_evidence_below
from xrobust.smoothing.votes import count_votes, streams_of

__all__ = [
    "ABSTAIN",
    "Certify",
    "CertifyAt",
    "GaussianNoise",
    "Noise",
    "Procedure",
    "SmoothedCertificate",
    "SmoothedClassifier",
    "SmoothedPrediction",
    "UnderNoise",
    "UniformNoise",
    "count_votes",
    "log_evidence_above",
    "log_evidence_below",
    "lower_bound",
    "mean_log_probability",
    "noisy_logits",
    "predict",
    "streams_of",
    "votes_needed",
]
