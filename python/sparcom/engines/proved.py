"""What an engine keeps of a proof that comes after it was loaded."""

from dataclasses import replace
from typing import Any

from sparcom.engines.base import EngineInfo
from sparcom.engines.proof import Proof, not_proved


class ProvedByCounts:
    """What an engine keeps that is proved after it was loaded, by its counts (`against.Prover`).

    proof: None as long as it is not proved. info: what the engine says of itself, and its proof.
    """

    proof: Proof | None = None
    info: EngineInfo
    _proof_facts: dict[str, Any] = not_proved("it was loaded without `load_engine`")

    def set_info(self, info: EngineInfo) -> None:
        """Keep the facts of an engine that has started, perhaps not for the first time."""
        self.info = replace(info, proof=self._proof_facts)

    def set_proof(self, proof: Proof | None, why: str) -> None:
        """Keep a proof, or why there is none."""
        self.proof = proof
        self._proof_facts = proof.facts() if proof else not_proved(why)
        self.set_info(self.info)
